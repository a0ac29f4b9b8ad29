"""Fixtures live beside the servers they start."""

pytest_plugins = [  # what others import stands first, or pytest cannot rewrite its assertions
    "tests.servers.fake_openai",
    "tests.servers.fake_pinecone",
    "tests.servers.fake_process",
    "tests.servers.fake_youtube",
    "tests.servers.postgres",
    "tests.servers.lite",
    "tests.servers.fault_proxy",
    "tests.servers.roads",
    "tests.servers.bench",
    "tests.servers.shell",
    "tests.servers.impaired",
    "tests.servers.vector_bench",
    "tests.servers.rich_bench",
    "tests.servers.redis",
    "tests.servers.rabbitmq",
    "tests.servers.tcp_proxy",
    "tests.servers.message_bench",
    "tests.servers.batch_bench",
    "tests.servers.vector_shell",
    "tests.servers.views_bench",
]
