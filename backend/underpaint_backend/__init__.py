"""The daemon of Underpaint: a server that answers, workers that paint, and the command line."""
