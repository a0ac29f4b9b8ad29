"""Runs any job: pages, pace, money, journal, books. It imports no job."""
