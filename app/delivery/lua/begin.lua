-- Begin the next job that waits.
-- A script because "taken from the queue" and "this worker has it" must be one step: a worker that dies in between would
-- leave a job that nobody looks for.
-- Uses lib_start
-- KEYS[1], KEYS[2] as lib_start says   KEYS[3] list to take from
-- ARGV as lib_start says, from 1 on
-- Returns {id, data}, or nil: nothing waits.
return start(KEYS[3], 1)
