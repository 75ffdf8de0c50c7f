"""What the machine says about itself: CPU and GPU state, memory, energy, and the lock of a device."""
