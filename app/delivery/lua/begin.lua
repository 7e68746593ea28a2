-- Begin the next job that waits, and ask for its admission.
-- A script because "taken from the queue" and "this worker has it" must be one step: a worker that dies in between would
-- leave a job that nobody looks for.
-- Uses lib_start lib_ask
-- KEYS[1], KEYS[2] as lib_start says   KEYS[3] list to take from   KEYS[4…] as lib_ask says
-- ARGV as lib_start says, from 1 on, then from 7 on as lib_ask says
-- Returns {id, data} or more, as lib_ask says, or nil: nothing waits.
return ask(4, 7, start(KEYS[3], 1))
