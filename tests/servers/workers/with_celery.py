"""A worker as Celery's own guide writes one, with a classic or a quorum queue; it knows nothing of this tool."""

import os

from celery import Celery
from kombu import Exchange, Queue

name = os.environ["QUEUE"]
app = Celery("tasks", broker=os.environ["BROKER_URL"])
app.conf.task_acks_late = True
app.conf.worker_hijack_root_logger = False
if os.environ.get("QUORUM"):
    arguments = {"x-queue-type": "quorum"}
    app.conf.task_queues = [Queue(name, Exchange(name, type="topic"), routing_key=name, queue_arguments=arguments)]
    app.conf.task_default_queue, app.conf.task_default_exchange_type = name, "topic"
    app.conf.task_default_queue_type, app.conf.worker_detect_quorum_queues = "quorum", True
    app.conf.broker_transport_options = {"confirm_publish": True}
else:
    app.conf.task_queues = [Queue(name)]


@app.task(name="process_video")
def process_video(video_id: str) -> None:
    with open(os.environ["RECEIVED"], "a") as received:
        received.write(f"{video_id}\n")
