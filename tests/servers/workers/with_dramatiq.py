"""A worker as Dramatiq's own guide writes one; it knows nothing of this tool."""

import os

import dramatiq
import psycopg
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker

url = os.environ["BROKER_URL"]
broker = RedisBroker(url=url) if url.startswith("redis") else RabbitmqBroker(url=url)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=os.environ["QUEUE"])
def process_video(video_id: str) -> None:
    with open(os.environ["RECEIVED"], "a") as received:
        received.write(f"{video_id}\n")
    if "DATABASE_URL" in os.environ:
        with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as database:
            database.execute("update videos set has_rich_semantics = true where id = %s", [video_id])
