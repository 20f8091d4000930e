"""From committed transactions to what each channel is told."""
