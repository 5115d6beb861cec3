"""Side by side: csms and what else could be used, under the same load, in the same session. `make bench`."""
