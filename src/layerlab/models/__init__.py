"""Architectures, one file each. configs/model/lstm.yaml <-> models/lstm.py <-> class LSTM."""
