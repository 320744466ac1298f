"""Networks, without tasks and time: layers, VAEs, hypernetworks, frozen copies."""
