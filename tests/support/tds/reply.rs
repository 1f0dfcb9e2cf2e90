//! Writes the tokens of a reply.

use bytes::{BufMut, BytesMut};
use tds_protocol::codec::{write_b_varchar, write_us_varchar};
use tds_protocol::token::{Done, DoneProc, DoneStatus};

use super::values::{Declared, Sql};

/// The encoded tokens of a reply.
#[derive(Debug, Default)]
pub(crate) struct TdsReply(pub(crate) BytesMut);

impl TdsReply {
    /// Writes the columns of a result set.
    pub(crate) fn columns(&mut self, columns: &[(&str, &str)]) -> &mut Self {
        self.0.put_u8(0x81);
        self.0.put_u16_le(u16::try_from(columns.len()).expect("the number of columns fits u16"));
        for (name, kind) in columns {
            self.0.put_u32_le(0);
            self.0.put_u16_le(0x0001);
            Declared::parse(kind).write_type(&mut self.0);
            write_b_varchar(&mut self.0, name);
        }
        self
    }

    /// Writes a row.
    pub(crate) fn row(&mut self, values: &[(&str, Sql)]) -> &mut Self {
        self.0.put_u8(0xd1);
        for (kind, value) in values {
            Declared::parse(kind).write(value, &mut self.0);
        }
        self
    }

    /// Writes a result set with one column and one row.
    pub(crate) fn single(&mut self, name: &str, kind: &str, value: Sql) -> &mut Self {
        self.columns(&[(name, kind)]).row(&[(kind, value)])
    }

    pub(crate) fn error(
        &mut self,
        number: u32,
        class: u8,
        message: &str,
        procedure: &str,
    ) -> &mut Self {
        self.message(0xaa, (number, class), message, procedure)
    }

    /// Writes a message of severity 0, such as the text of PRINT.
    pub(crate) fn info(&mut self, message: &str, procedure: &str) -> &mut Self {
        self.message(0xab, (0, 0), message, procedure)
    }

    fn message(
        &mut self,
        token: u8,
        (number, class): (u32, u8),
        message: &str,
        procedure: &str,
    ) -> &mut Self {
        let mut body = BytesMut::new();
        body.put_u32_le(number);
        body.put_u8(1);
        body.put_u8(class);
        write_us_varchar(&mut body, message);
        write_b_varchar(&mut body, "endpoint");
        write_b_varchar(&mut body, procedure);
        body.put_u32_le(1);
        self.token(token, &body)
    }

    /// Acknowledges the reset of the connection.
    pub(crate) fn was_reset(&mut self) -> &mut Self {
        self.token(0xe3, &[18, 0, 0])
    }

    /// Redirects the client to another address.
    pub(crate) fn redirect(&mut self, host: &str, port: u16) -> &mut Self {
        let mut place = BytesMut::new();
        place.put_u8(0);
        place.put_u16_le(port);
        write_us_varchar(&mut place, host);
        let mut body = BytesMut::new();
        body.put_u8(20);
        body.put_u16_le(u16::try_from(place.len()).expect("the length of the name fits u16"));
        body.put_slice(&place);
        body.put_u16_le(0);
        self.token(0xe3, &body)
    }

    pub(crate) fn login_accepted(&mut self) -> &mut Self {
        let mut body = BytesMut::new();
        body.put_u8(1);
        body.put_u32(0x7400_0004);
        write_b_varchar(&mut body, "TDS endpoint");
        body.put_u32(0x1000_0000);
        self.token(0xad, &body)
    }

    pub(crate) fn return_status(&mut self, status: i32) -> &mut Self {
        self.0.put_u8(0x79);
        self.0.put_i32_le(status);
        self
    }

    pub(crate) fn output(&mut self, name: &str, declared: &Declared, value: &Sql) -> &mut Self {
        self.0.put_u8(0xac);
        self.0.put_u16_le(0);
        write_b_varchar(&mut self.0, name);
        self.0.put_u8(1);
        self.0.put_u32_le(0);
        self.0.put_u16_le(0);
        declared.write_type(&mut self.0);
        declared.write(value, &mut self.0);
        self
    }

    pub(crate) fn done(&mut self, is_error: bool) -> &mut Self {
        let mut status = DoneStatus::default();
        status.error = is_error;
        Done { status, cur_cmd: 0, row_count: 0 }.encode(&mut self.0);
        self
    }

    pub(crate) fn done_procedure(&mut self, is_error: bool) -> &mut Self {
        let mut status = DoneStatus::default();
        status.error = is_error;
        DoneProc { status, cur_cmd: 0, row_count: 0 }.encode(&mut self.0);
        self
    }

    pub(crate) fn attention_done(&mut self) -> &mut Self {
        let mut status = DoneStatus::default();
        status.attn = true;
        Done { status, cur_cmd: 0, row_count: 0 }.encode(&mut self.0);
        self
    }

    fn token(&mut self, token: u8, body: &[u8]) -> &mut Self {
        self.0.put_u8(token);
        self.0.put_u16_le(u16::try_from(body.len()).expect("the length of the token fits u16"));
        self.0.put_slice(body);
        self
    }
}
