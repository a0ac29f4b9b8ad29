"""Figures for claims: each command starts what it needs on this machine and prints what it measured."""
