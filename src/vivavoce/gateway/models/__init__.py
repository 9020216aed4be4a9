"""Which models there are, where, until when, how much of them; and what time does to deployments of them."""
