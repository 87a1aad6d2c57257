//! Describes one operation of the document: what it takes and what it answers.

use alloc::string::ToString as _;

use utoipa::openapi::path::{Operation, OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::openapi::{ContentBuilder, KnownFormat, Ref, RefOr, Required, Response, ResponseBuilder};
use utoipa::{IntoParams, ToSchema};

use crate::ErrorBody;

const JSON: &str = "application/json";

/// What every request may be refused with.
const REFUSALS: [u16; 4] = [401, 500, 503, 504];

/// An operation that is being described.
pub(super) struct Described(OperationBuilder);

impl Described {
    /// Begins one. `id` is its name for programs.
    pub(super) fn new(id: &str, summary: &str) -> Self {
        let operation = OperationBuilder::new().operation_id(Some(id)).summary(Some(summary));
        Self(operation).refused(&REFUSALS)
    }

    /// Adds what stands in the braces of its path.
    pub(super) fn named(self, name: &str, description: &str) -> Self {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .description(Some(description))
            .schema(Some(ObjectBuilder::new().schema_type(Type::String)));
        Self(self.0.parameter(parameter))
    }

    /// Adds the parameters of its query.
    pub(super) fn asks<Q: IntoParams>(self) -> Self {
        let parameters = Q::into_params(|| Some(ParameterIn::Query));
        Self(parameters.into_iter().fold(self.0, |operation, parameter| operation.parameter(parameter)))
    }

    /// Adds its body.
    pub(super) fn takes(self, body: RequestBody) -> Self {
        Self(self.0.request_body(Some(body)))
    }

    /// Adds its answer.
    pub(super) fn answers(self, schema: RefOr<Schema>) -> Self {
        Self(self.0.response("200", response("What was asked for, or what the request made of it.", schema)))
    }

    /// Adds statuses that it may be refused with.
    pub(super) fn refused(self, statuses: &[u16]) -> Self {
        let with = |operation: OperationBuilder, status: &u16| {
            operation.response(status.to_string(), response(meaning(*status), one::<ErrorBody>()))
        };
        Self(statuses.iter().fold(self.0, with))
    }

    pub(super) fn build(self) -> Operation {
        self.0.build()
    }
}

/// What a status means in this API.
const fn meaning(status: u16) -> &'static str {
    match status {
        400 => "The path, the parameters or the body are not of the right form.",
        401 => "The token is missing or wrong.",
        404 => "There is nothing of that name.",
        408 => "The rest of the body did not come in time.",
        409 => "What is there does not allow it, or the digits fit several.",
        413 => "The body is too large.",
        422 => "The form is right and the content is not.",
        503 => "Too many requests are being answered, or the service is stopping. Try again later.",
        504 => "The service did not answer in time. Try again later.",
        507 => "There is no room on the medium.",
        _ => "Something failed in the service.",
    }
}

fn response(description: &str, schema: RefOr<Schema>) -> Response {
    let content = ContentBuilder::new().schema(Some(schema)).build();
    ResponseBuilder::new().description(description).content(JSON, content).build()
}

/// One value.
pub(super) fn one<T: ToSchema>() -> RefOr<Schema> {
    Ref::from_schema_name(T::name()).into()
}

/// A list of values.
pub(super) fn many<T: ToSchema>() -> RefOr<Schema> {
    ArrayBuilder::new().items(one::<T>()).into()
}

/// A body of JSON.
pub(super) fn json<T: ToSchema>() -> RequestBody {
    body(JSON, one::<T>(), None)
}

/// A body of bytes of another type.
pub(super) fn bytes(content_type: &str, description: &str) -> RequestBody {
    let format = SchemaFormat::KnownFormat(KnownFormat::Binary);
    let schema = ObjectBuilder::new().schema_type(Type::String).format(Some(format));
    body(content_type, schema.into(), Some(description))
}

fn body(content_type: &str, schema: RefOr<Schema>, description: Option<&str>) -> RequestBody {
    let content = ContentBuilder::new().schema(Some(schema)).build();
    RequestBodyBuilder::new()
        .description(description)
        .content(content_type, content)
        .required(Some(Required::True))
        .build()
}
