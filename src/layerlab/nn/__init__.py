"""Mathematics with a paper or a formula behind it. Torch only."""
