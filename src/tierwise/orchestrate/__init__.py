"""The only door to Prefect.

steps, batch_task   steps as Prefect tasks over batches
runs                recorded flow runs; documents reads and writes those of a run
process_state       what one process keeps: engines, runs, a dry run
dry_run             a flow's function with a planner or a sampler in place of the engine
run_manifest        how worker processes elsewhere join a run
failures            the cause of a failed run, in one line
artifacts           Prefect's artifacts; prefect_ui has progress bars, tags and final states
pause_for_top_up    a flow run pauses until its budget is raised
server, services    Prefect's server and worker, and the processes that they are
"""
