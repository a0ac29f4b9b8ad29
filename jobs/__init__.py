"""What each job is, and the engine that runs any of them. No SDK, no SQL, no printing."""
