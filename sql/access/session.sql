-- For access.session_query: of whom a session is, and until when. $1 is the cookie's value, a text.
--
-- The columns are taken in this order, whatever they are called: the user's id, the time at which the session ends
-- (timestamptz, or timestamp in UTC), and, if there is a third one, the organization that requests mean when they name
-- none. No row: there is no such session. The worker's own role runs it, read-only, for at most two seconds.
--
-- This one is for the tables of @auth/pg-adapter; Prisma's adapter calls them "Session". Where the table holds hashes,
-- compare with encode(sha256(convert_to($1, 'UTF8')), 'hex').
select "userId", expires
from sessions
where "sessionToken" = $1
