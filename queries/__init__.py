"""Every round trip to a database or a service, and the translation of their errors."""
