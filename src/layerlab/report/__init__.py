"""What result files say, as pages and dashboards. It reads files alone: no torch, no run is started."""
