-- Sum what was used in the trailing window of a limit, kept in ten parts of the window and the one before them:
-- however the exchange's own windows lie, none of them can hold more than this.
-- need: how much is wanted   most: how much may be used
-- Returns what is used, and in how many ms `need` more will fit under `most`: 0 if it does now. What is larger than
-- all of `most` fits when nothing else is used. Read once per script: lib_rate_add keeps it up.
local function rate_used(limit, now, need, most)
  local size = limit.window / 10
  local newest = math.floor(now / size)
  if not limit.parts then
    local names, name = {}, limit.window .. ':%d'
    for part = newest - 10, newest do names[#names + 1] = string.format(name, part) end
    limit.parts, limit.used = redis.call('HMGET', limit.key, unpack(names)), 0
    for i = 1, #names do
      limit.parts[i] = tonumber(limit.parts[i] or 0)
      limit.used = limit.used + limit.parts[i]
    end
  end
  local left = limit.used
  if left <= 0 or left + need <= most then return limit.used, 0 end
  for i = 1, #limit.parts do
    left = left - limit.parts[i]
    if left <= 0 or left + need <= most then return limit.used, (newest + i) * size - now end
  end
end
