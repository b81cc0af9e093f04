"""What a denoiser and a source answer: samples, imputations, probabilities, likelihoods."""
