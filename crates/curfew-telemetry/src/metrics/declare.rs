//! The macro by which a crate declares its metrics in a table.

/// Declares a crate's metrics: a type with a field for each metric. All metrics start at 0, and
/// appear in `/metrics` after `register` was called. Each row declares one metric:
///
/// ```
/// # use curfew_telemetry::{Counter, Counters, Histogram, ROUND_TRIP_SECONDS, Registry};
/// curfew_telemetry::labels! {
///     /// The way that an order comes in.
///     Place = "place" {
///         /// The shop.
///         Shop = "shop",
///         /// The telephone.
///         Telephone = "telephone",
///     }
/// }
/// curfew_telemetry::metrics! {
///     /// The metrics of a bakery.
///     pub struct BakeryMetrics {
///         loaves: Counter, "Loaves baked";
///         orders: Counters<Place>, "Orders, by where they came in";
///         order_duration: Histogram = Histogram::new(ROUND_TRIP_SECONDS), Seconds, "From an order to its loaf";
///     }
/// }
/// let registry = Registry::default();
/// let metrics = BakeryMetrics::register(&registry);
/// metrics.loaves.inc();
/// metrics.orders.inc(Place::Shop);
/// let text = registry.encode();
/// assert!(text.contains("# HELP curfew_loaves Loaves baked.\n"));
/// assert!(text.contains("curfew_loaves_total 1\n"));
/// assert!(text.contains("curfew_orders_total{place=\"shop\"} 1\n"));
/// assert!(text.contains("curfew_order_duration_seconds_count 0\n"));
/// ```
///
/// A row has the form `name: Type = value, Unit, "help";`. The name is the public name without
/// `curfew_` and `_total`. It may end with the unit. The type determines the labels. The value is
/// optional: it gives the buckets of a histogram, or the names of a label that are known only at
/// start. The unit is optional too: `Seconds` or `Bytes`. Parameters for the values follow the name
/// of the declared type: `struct BakeryMetrics(shops: Vec<&'static str>)`.
#[macro_export]
macro_rules! metrics {
    (
        $(#[$doc:meta])+
        $visible:vis struct $name:ident $(($($given:ident: $of:ty),+))? {
            $($field:ident: $type:ty $(= $value:expr)?, $($unit:ident,)? $help:literal;)+
        }
    ) => {
        $(#[$doc])+
        #[derive(Debug)]
        $visible struct $name {
            $(#[doc = concat!($help, ".")] pub $field: $type,)+
            registry: $crate::Registry,
        }

        impl $name {
            /// Creates all metrics with the value 0 and adds them to `registry`. Call this function
            /// once per registry.
            $visible fn register(
                registry: &$crate::Registry $($(, $given: $of)+)?
            ) -> ::std::sync::Arc<Self> {
                $(let $field: $type = $crate::metrics!(@value $($value)?);)+
                $(registry.add(
                    stringify!($field),
                    $help,
                    $crate::metrics!(@unit $($unit)?),
                    &$field,
                );)+
                ::std::sync::Arc::new(Self { $($field,)+ registry: registry.clone() })
            }

            /// The registry of these metrics.
            $visible fn registry(&self) -> &$crate::Registry {
                &self.registry
            }

            /// The tracer of the registry.
            $visible fn tracer(&self) -> &$crate::Tracer {
                self.registry.tracer()
            }
        }
    };
    (@value) => { Default::default() };
    (@value $value:expr) => { $value };
    (@unit) => { None };
    (@unit $unit:ident) => { Some($crate::Unit::$unit) };
}
