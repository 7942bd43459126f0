"""A lab that runs by itself: server, schedules, deployments, report server."""
