-- For a live preset: issues by place and category, as /api/realtime/heatmap/stream shows them.
--
-- $1 is the stream's organization, a text; what follows are the preset's `arguments` in their order, each a text[] of
-- the values that the client filters on, or null where it does not: here campusId, buildingId, category. A row becomes
-- an object as to_json prints it, so columns are called what the front end calls them. The worker's own role runs it,
-- read-only, for at most five seconds, whenever an event on one of the preset's channels tells that it may have changed.
select
    campus_id as "campusId",
    building_id as "buildingId",
    category,
    count(*) as total,
    count(*) filter (where status = 'open') as open,
    count(*) filter (where priority = 'critical') as critical
from public.issues
where organization_id = $1
    and ($2::text[] is null or campus_id = any ($2))
    and ($3::text[] is null or building_id = any ($3))
    and ($4::text[] is null or category = any ($4))
group by campus_id, building_id, category
order by campus_id, building_id, category
