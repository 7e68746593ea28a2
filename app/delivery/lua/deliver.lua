-- Hand a batch of jobs to one RQ queue.
-- A script because "is it there?" and "push it" must be one step, and a batch one round trip.
-- Uses lib_deliver
-- KEYS, ARGV as lib_deliver says, from 1 on
-- Returns the number of jobs pushed, or the name of another whose queues these are.
local pushed = deliver(1, 1)
return pushed
