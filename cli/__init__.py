"""What an operator types and sees: Typer, rich and the environment live only here."""
