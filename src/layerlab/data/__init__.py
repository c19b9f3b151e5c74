"""Where bytes come from, how they are split and batched; one file per source."""
