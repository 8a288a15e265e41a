"""MV-VDM: its sampler here, networks in `models`; `data` reads clips, `run` trains, `convert` takes public weights."""
