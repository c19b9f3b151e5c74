"""Claims: which arms, which checks, what verdict."""
