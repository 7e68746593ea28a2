-- Sum what was used in the trailing window of a limit, kept in ten parts of the window and the one before them:
-- however the exchange's own windows lie, none of them can hold more than this.
-- need: how much is wanted   most: how much may be used
-- Returns what is used, and in how many ms `need` more will fit under `most`: 0 if it does now. What is larger than
-- all of `most` fits when nothing else is used.
local function rate_used(limit, now, need, most)
  local size = limit.window / 10
  local newest, names, used = math.floor(now / size), {}, 0
  for part = newest - 10, newest do names[#names + 1] = limit.window .. ':' .. part end
  local parts = redis.call('HMGET', limit.key, unpack(names))
  for i = 1, #names do
    parts[i] = tonumber(parts[i] or 0)
    used = used + parts[i]
  end
  local left = used
  for i = 0, #names do
    if i > 0 then left = left - parts[i] end
    if left <= 0 or left + need <= most then return used, i == 0 and 0 or (newest + i) * size - now end
  end
end
