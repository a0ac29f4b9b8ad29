"""The kill harness: real runs killed at every place, judged by a provider and a database that outlive them."""
