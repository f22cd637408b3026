"""The test bed of `make oncall-test`: outages, signals and kills, on a real server and a real provider's socket."""
