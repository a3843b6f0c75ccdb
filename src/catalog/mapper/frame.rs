//! The frame of an event: what is fixed was written when the catalog was compiled, what varies goes from the tuple's
//! bytes through an encoder into one buffer.

use std::fmt::Write as _;

use bytes::BytesMut;

use crate::catalog::declaration::Image;
use crate::catalog::event::{Epoch, EventId};
use crate::catalog::rule::{Computed, Envelope, Field, Form, JoinField};
use crate::catalog::value::{Encoder, encode_string};
use crate::postgres::Lsn;
use crate::source::Operation;

use super::bound::{BoundColumn, JoinEncoders};
use super::row::Known;
use super::trouble::Trouble;
use super::view::{JoinRow, Outcome, View};

/// Above this the buffer of an outsize event is given back.
const KEPT_BYTES: usize = 4 << 20;

/// Where a frame is put together.
#[derive(Debug, Default)]
pub(super) struct Frame {
    out: BytesMut,
    /// Names of the fields left out: JSON strings, with commas between.
    unchanged: BytesMut,
    /// Where the event's JSON starts, and how long it may become.
    json: usize,
    max_event: u64,
    /// Bytes of values that were not written, because the event is too large without them or they were never kept.
    withheld: u64,
    /// `<epoch>.<commit lsn>.`, the same for all events of a transaction.
    prefix: String,
    prefix_of: Option<(Epoch, Lsn)>,
}

impl Frame {
    /// Everything before `data`: `id: …` and the envelope's head. Returns where `data` starts.
    fn open(
        &mut self,
        id: EventId,
        envelope: &Envelope,
        commit_millis: i64,
        organization: &str,
        max_event: u64,
    ) -> usize {
        if self.out.capacity() > KEPT_BYTES {
            self.out = BytesMut::new();
        }
        self.out.clear();
        self.unchanged.clear();
        let of = Some((id.epoch, id.commit_lsn));
        if self.prefix_of != of {
            self.prefix.clear();
            // Writing to a String does not fail.
            let _ = write!(self.prefix, "{}.{}.", id.epoch, id.commit_lsn.as_u64());
            self.prefix_of = of;
        }
        let mut ordinal = itoa::Buffer::new();
        let ordinal = ordinal.format(id.ordinal).as_bytes();
        self.out.extend_from_slice(b"id: ");
        self.out.extend_from_slice(self.prefix.as_bytes());
        self.out.extend_from_slice(ordinal);
        self.out.extend_from_slice(b"\ndata: ");
        (self.json, self.max_event, self.withheld) = (self.out.len(), max_event, 0);
        self.out.extend_from_slice(b"{\"id\":\"");
        self.out.extend_from_slice(self.prefix.as_bytes());
        self.out.extend_from_slice(ordinal);
        self.out.extend_from_slice(&envelope.event_type);
        self.out.extend_from_slice(itoa::Buffer::new().format(commit_millis).as_bytes());
        self.out.extend_from_slice(b",\"organizationId\":");
        encode_string(organization.as_bytes(), &mut self.out);
        self.out.extend_from_slice(&envelope.channel);
        self.out.len()
    }

    /// Everything after `data`. True when the event was too large, and went without its data.
    fn close(&mut self, data: usize) -> bool {
        if !self.unchanged.is_empty() {
            self.out.extend_from_slice(b",\"unchanged\":[");
            self.out.extend_from_slice(&self.unchanged);
            self.out.extend_from_slice(b"]");
        }
        self.out.extend_from_slice(b"}");
        let bytes = self.written().saturating_add(self.withheld);
        let oversize = bytes > self.max_event || self.withheld > 0;
        if oversize {
            self.out.truncate(data);
            self.out.extend_from_slice(b"null,\"oversize\":");
            self.out.extend_from_slice(itoa::Buffer::new().format(bytes).as_bytes());
            self.out.extend_from_slice(b"}");
        }
        self.out.extend_from_slice(b"\n\n");
        oversize
    }

    /// The event's length so far.
    fn written(&self) -> u64 {
        (self.out.len() - self.json) as u64
    }

    /// Whether the event is too large with a value of so many bytes, so that writing it would be for nothing: as JSON
    /// no value is shorter, but by a few bytes.
    fn overflows(&self, bytes: usize) -> bool {
        bytes as u64 > self.max_event || self.written() > self.max_event
    }

    /// Counts a value instead of writing it; the event is oversize.
    fn withhold(&mut self, bytes: u64) {
        self.withheld = self.withheld.saturating_add(bytes);
        self.out.extend_from_slice(b"null");
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.out
    }

    /// An event whose data is JSON already.
    pub(super) fn write_json(
        &mut self,
        id: EventId,
        envelope: &Envelope,
        commit_millis: i64,
        organization: &str,
        data: &str,
        max_event: u64,
    ) -> bool {
        let start = self.open(id, envelope, commit_millis, organization, max_event);
        if self.overflows(data.len()) {
            self.withhold(data.len() as u64);
            return self.close(start);
        }
        // In JSON a line break is white space between tokens; in a frame it would end the line.
        self.out.extend(data.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
        self.close(start)
    }

    /// An event of a rule.
    pub(super) fn write(
        &mut self,
        id: EventId,
        envelope: &Envelope,
        commit_millis: i64,
        fields: &[Field],
        source: &mut DataSource<'_, '_>,
    ) -> bool {
        let organization = source.view.organization;
        let start = self.open(id, envelope, commit_millis, organization, source.max_event);
        self.write_object(fields, source);
        self.close(start)
    }

    fn write_object(&mut self, fields: &[Field], source: &mut DataSource<'_, '_>) {
        self.out.extend_from_slice(b"{");
        for field in fields {
            let before = self.out.len();
            self.separate(&field.key);
            if !self.write_field(field, source) {
                self.out.truncate(before);
            }
        }
        self.out.extend_from_slice(b"}");
    }

    /// A comma unless it is the first, and the key.
    fn separate(&mut self, key: &[u8]) {
        if !self.out.ends_with(b"{") {
            self.out.extend_from_slice(b",");
        }
        self.out.extend_from_slice(key);
    }

    /// The field's value; false when the field is left out.
    fn write_field(&mut self, field: &Field, source: &mut DataSource<'_, '_>) -> bool {
        let view = source.view;
        match &field.form {
            Form::Column(slot) => {
                let encoder = view.bound.position(*slot).and_then(|position| view.bound.column(position));
                let known = view.current(*slot);
                self.write_known(
                    known,
                    encoder.map(|column| &column.encoder),
                    field.omit_null,
                    &field.path,
                    source,
                )
            }
            Form::Expression(computed) => self.write_expression(computed, field, source),
            Form::JoinColumn(join, column) => {
                let encoder = source.encoders.get(source.table, *join, *column);
                let known = view.join_column(*join, *column);
                if matches!(view.join(*join), JoinRow::Unknown) {
                    source.trouble.join_unknown(view, *join);
                    return self.write_null(field.omit_null);
                }
                self.write_known(known, encoder, field.omit_null, &field.path, source)
            }
            Form::JoinObject(join, fields) => match view.join(*join) {
                JoinRow::None => self.write_null(field.omit_null),
                JoinRow::Unknown => {
                    source.trouble.join_unknown(view, *join);
                    self.write_null(field.omit_null)
                }
                JoinRow::Mirrored(_) | JoinRow::Collected(_) => {
                    self.write_join_object(*join, fields, &field.path, source);
                    true
                }
            },
            Form::Row(image) => {
                self.write_row(*image, &field.path, source);
                true
            }
            Form::Changed => {
                self.write_changed(source);
                true
            }
            Form::Previous => {
                self.write_previous(&field.path, source);
                true
            }
            Form::Value(json) => {
                self.out.extend_from_slice(json);
                true
            }
            Form::Object(fields) => {
                self.write_object(fields, source);
                true
            }
        }
    }

    fn write_null(&mut self, omit: bool) -> bool {
        self.out.extend_from_slice(b"null");
        !omit
    }

    fn write_known(
        &mut self,
        known: Known<'_>,
        encoder: Option<&Encoder>,
        omit_null: bool,
        path: &str,
        source: &mut DataSource<'_, '_>,
    ) -> bool {
        match known {
            Known::Text(text) if self.overflows(text.len()) => self.withhold(text.len() as u64),
            Known::Oversize { length, .. } => self.withhold(length.into()),
            Known::Text(text) => match encoder {
                Some(encoder) => encoder.encode(text, &mut self.out),
                None => encode_string(text, &mut self.out),
            },
            Known::Null => return self.write_null(omit_null),
            Known::Unlogged => {
                source.trouble.unlogged(source.view);
                return self.write_null(omit_null);
            }
            Known::Unchanged => {
                self.leave_out(path);
                return false;
            }
        }
        true
    }

    /// Names a field that is left out because its value is not in the log.
    fn leave_out(&mut self, path: &str) {
        if !self.unchanged.is_empty() {
            self.unchanged.extend_from_slice(b",");
        }
        encode_string(path.as_bytes(), &mut self.unchanged);
    }

    fn write_expression(
        &mut self,
        computed: &Computed,
        field: &Field,
        source: &mut DataSource<'_, '_>,
    ) -> bool {
        match source.view.evaluate(computed) {
            Outcome::Value(value) if value.is_null() => return self.write_null(field.omit_null),
            Outcome::Value(value) => value.encode(&mut self.out),
            Outcome::Unchanged => {
                self.leave_out(&field.path);
                return false;
            }
            Outcome::Unlogged => {
                source.trouble.unlogged(source.view);
                return self.write_null(field.omit_null);
            }
            Outcome::Error(error) => {
                source.trouble.expression(source.view, source.rule, computed, &error);
                return self.write_null(field.omit_null);
            }
        }
        true
    }

    fn write_join_object(
        &mut self,
        join: usize,
        fields: &[JoinField],
        path: &str,
        source: &mut DataSource<'_, '_>,
    ) {
        self.out.extend_from_slice(b"{");
        for field in fields {
            let before = self.out.len();
            self.separate(&field.key);
            let known = source.view.join_column(join, field.column);
            let encoder = source.encoders.get(source.table, join, field.column);
            let written = if known == Known::Unchanged {
                self.leave_out(&format!("{path}.{}", field.name));
                false
            } else {
                self.write_known(known, encoder, field.omit_null, path, source)
            };
            if !written {
                self.out.truncate(before);
            }
        }
        self.out.extend_from_slice(b"}");
    }

    /// Every column; null where there is no such row.
    fn write_row(&mut self, image: Image, path: &str, source: &mut DataSource<'_, '_>) {
        let view = source.view;
        if image == Image::Old && !view.row.has_old() {
            self.out.extend_from_slice(b"null");
            return;
        }
        self.out.extend_from_slice(b"{");
        for (position, column) in view.bound.published() {
            let known = match image {
                Image::New => view.row.current(position),
                Image::Old => view.row.old(position),
            };
            self.write_column(column, known, path, source);
        }
        self.out.extend_from_slice(b"}");
    }

    fn write_column(
        &mut self,
        column: &BoundColumn,
        known: Known<'_>,
        path: &str,
        source: &mut DataSource<'_, '_>,
    ) {
        if known == Known::Unchanged {
            self.leave_out(&format!("{path}.{}", column.name));
            return;
        }
        self.separate(&column.key);
        self.write_known(known, Some(&column.encoder), false, path, source);
    }

    /// The names of the columns that changed; null when the log does not tell.
    fn write_changed(&mut self, source: &mut DataSource<'_, '_>) {
        let view = source.view;
        let start = self.out.len();
        self.out.extend_from_slice(b"[");
        for (position, column) in view.bound.published() {
            match view.row.changed(position) {
                Some(false) => {}
                Some(true) => {
                    if !self.out.ends_with(b"[") {
                        self.out.extend_from_slice(b",");
                    }
                    encode_string(column.name.as_bytes(), &mut self.out);
                }
                None => {
                    source.trouble.unlogged(view);
                    self.out.truncate(start);
                    self.out.extend_from_slice(b"null");
                    return;
                }
            }
        }
        self.out.extend_from_slice(b"]");
    }

    /// The old values of the columns that changed; null when the log does not tell, and where there is no old row or
    /// no new one.
    fn write_previous(&mut self, path: &str, source: &mut DataSource<'_, '_>) {
        let view = source.view;
        if view.row.operation() != Operation::Update {
            self.out.extend_from_slice(b"null");
            return;
        }
        let (start, named, withheld) = (self.out.len(), self.unchanged.len(), self.withheld);
        self.out.extend_from_slice(b"{");
        for (position, column) in view.bound.published() {
            match view.row.changed(position) {
                Some(false) => {}
                Some(true) => self.write_column(column, view.row.old(position), path, source),
                None => {
                    source.trouble.unlogged(view);
                    self.out.truncate(start);
                    // Nothing of it counts, or the event would be called too large for what it does not hold.
                    self.unchanged.truncate(named);
                    self.withheld = withheld;
                    self.out.extend_from_slice(b"null");
                    return;
                }
            }
        }
        self.out.extend_from_slice(b"}");
    }
}

/// What `data` is written from.
pub(super) struct DataSource<'s, 'v> {
    pub(super) view: &'s View<'v>,
    pub(super) encoders: &'s JoinEncoders,
    pub(super) trouble: &'s mut Trouble,
    pub(super) table: usize,
    pub(super) rule: usize,
    pub(super) max_event: u64,
}
