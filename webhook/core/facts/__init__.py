"""What a workload asks for: the weights it can read, the devices it can reach, the ways out of its sandbox."""
