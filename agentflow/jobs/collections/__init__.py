"""Collections: files that a tenant uploads once and looks in with any job.

``catalogue`` says which there are, ``uploads`` takes files in, ``reader`` reads and indexes one, ``shelf`` gives a job
what it asked for. The files and their indexes are in the store of jobs, so that every worker reaches them.
"""
