"""What the system tests stand on: a machine of their own, an agent in it, and clients."""
