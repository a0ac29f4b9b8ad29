"""Fixtures live beside the servers they start."""

pytest_plugins = [
    "tests.servers.fake_openai",
    "tests.servers.fake_process",
    "tests.servers.postgres",
]
