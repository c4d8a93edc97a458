"""For those who build the project: packing weights, drawing the sample, looking for faults."""
