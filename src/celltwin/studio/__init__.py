"""celltwin studio: logs, training, pictures, what-ifs and exports on a page of one's own machine.

What is computed knows nothing of the page and is tested without a browser: `uploads`, `session`, `trainer`, `figures`,
`pack`, `whatif`, `export`. The page is `frame` and the tabs; `guard` and `server` stand between it and the
network. Nothing here is imported unless `celltwin studio` runs.
"""
