-- Who and what the demo's writer lives with: two organizations, their people, places and things. Ids are fixed, so
-- that everything here may be run again.

insert into public.organizations (id, name, plan) values
    ('acme', 'Acme Estates', 'team'),
    ('globex', 'Globex Campus', 'business')
on conflict do nothing;

insert into public.users (id, email, name) values
    ('ada', 'ada@acme.example', 'Ada Brandt'),
    ('bert', 'bert@acme.example', 'Bert Okafor'),
    ('cleo', 'cleo@acme.example', 'Cleo Lindqvist'),
    ('dora', 'dora@globex.example', 'Dora Castellanos'),
    ('emil', 'emil@globex.example', 'Emil Varga'),
    ('fay', 'fay@globex.example', 'Fay Nakamura'),
    ('gus', 'gus@agency.example', 'Gus Petrov')
on conflict do nothing;

insert into public.memberships (organization_id, user_id, role) values
    ('acme', 'ada', 'admin'),
    ('acme', 'bert', 'manager'),
    ('acme', 'cleo', 'employee'),
    ('globex', 'dora', 'admin'),
    ('globex', 'emil', 'manager'),
    ('globex', 'fay', 'employee'),
    ('acme', 'dora', 'member')
on conflict do nothing;

insert into public.campuses (id, organization_id, name) values
    ('acme-campus', 'acme', 'Riverside'),
    ('globex-campus', 'globex', 'North Hill')
on conflict do nothing;

insert into public.buildings (id, organization_id, campus_id, name)
select o || '-building-' || n, o, o || '-campus', (array['Mill', 'Foundry', 'Library', 'Annex'])[n]
from unnest(array['acme', 'globex']) as o, generate_series(1, 4) as n
on conflict do nothing;

insert into public.devices (id, organization_id, building_id, name, model, status, last_event_at)
select o || '-device-' || n, o, o || '-building-' || (n % 4 + 1),
    (array['Lobby', 'Server room', 'Cold store', 'Roof', 'Workshop', 'Archive', 'Kitchen', 'Gate'])[n] || ' sensor',
    (array['TH-100', 'TH-200'])[n % 2 + 1], 'ONLINE', now()
from unnest(array['acme', 'globex']) as o, generate_series(1, 8) as n
on conflict do nothing;

insert into public.lots (id, organization_id, name, total_slots, occupied)
select o || '-lot-' || n, o, (array['North lot', 'South lot', 'Garage'])[n], 20 * n, 9 * n
from unnest(array['acme', 'globex']) as o, generate_series(1, 3) as n
on conflict do nothing;

insert into public.properties (
    id, organization_id, title, address, city, status, price, bedrooms, area_m2, owner_id, metadata
)
select o || '-property-' || n, o,
    (array['Loft above the mill', 'Garden flat', 'Terraced house', 'Corner shop', 'Studio', 'Penthouse'])[n],
    n * 7 || ' Harbour Street', (array['Bergen', 'Porto', 'Gdansk'])[n % 3 + 1],
    (array['listed', 'draft', 'under_offer'])[n % 3 + 1], 180000 + 45000.50 * n, n % 4 + 1, 38.5 + 11 * n,
    case o when 'acme' then 'ada' else 'dora' end, jsonb_build_object('floor', n, 'tags', jsonb_build_array('demo'))
from unnest(array['acme', 'globex']) as o, generate_series(1, 6) as n
on conflict do nothing;
