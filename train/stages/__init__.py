"""The stages of a training: the denoiser, the VAE."""
