"""Clients that listen as people do, and the promise that is kept to them."""
