"""Storage: the port (`ports`) and the engines that implement it. SQL lives nowhere else."""
