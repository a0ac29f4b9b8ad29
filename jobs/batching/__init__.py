"""Whole files of requests, handed in and collected later. Read session.py first; states.py says what is next."""
