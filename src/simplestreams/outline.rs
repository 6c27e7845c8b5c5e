//! A products document whose products are read one by one.
//!
//! As a tree a document takes three times the memory of its bytes, and to ask for that and to give it back takes longer than to
//! read. What is done with each product by itself needs one of them at a time.

use std::ops::Range;

use crate::simplestreams::fault::Fault;
use crate::simplestreams::object::{Object, separate, write_name};
use crate::simplestreams::tree::{self, Node, Unread};

/// A products document whose products were not read.
#[derive(Clone, Debug)]
pub struct Outline<'a> {
    /// Its fields but for `products`.
    pub fields: Object<'a>,
    /// Its products, in their order.
    pub products: Vec<Unread<'a>>,
    /// Where `products` stands among its fields, if it has them.
    pub place: Option<usize>,
}

/// Where the products of a document are in its text: what is kept of an outline, so that they are looked for once.
#[derive(Clone, Debug)]
pub struct Places {
    /// Its fields but for `products`, as JSON.
    fields: String,
    /// The name of each product, and where the rest of it is.
    products: Vec<(String, Range<usize>)>,
    place: Option<usize>,
    faults: Vec<Fault>,
}

/// A products document that is being written: it gets its products one after the other.
#[derive(Debug)]
pub struct Unfinished {
    /// What there is so far.
    text: Vec<u8>,
    /// What comes after the last product.
    rest: Vec<u8>,
}

impl<'a> Outline<'a> {
    /// Reads a products document but for its products. Those that are no objects are left out, with the reason.
    pub fn parse(text: &'a str) -> serde_json::Result<(Self, Vec<Fault>)> {
        let (Node { fields, children, place }, faults) = tree::read(text, "products")?;
        Ok((Self { fields, products: children, place }, faults))
    }
}

impl Places {
    /// Reads a products document but for its products.
    pub fn of(text: &str) -> serde_json::Result<Self> {
        let (Outline { fields, products, place }, faults) = Outline::parse(text)?;
        let products = products.into_iter().map(|Unread { name, text: product }| {
            let start = product.as_ptr().addr() - text.as_ptr().addr();
            (name.into_owned(), start..start + product.len())
        });
        Ok(Self { fields: fields.to_json(), products: products.collect(), place, faults })
    }

    /// How much memory it takes, more or less. Of very many very small products, or very many that come again, it is a multiple of
    /// the document.
    pub fn size(&self) -> usize {
        let products: usize = self.products.iter().map(|product| size_of_val(product) + product.0.len()).sum();
        let faults: usize =
            self.faults.iter().map(|fault| size_of_val(fault) + fault.at.iter().map(|at| size_of_val(at) + at.len()).sum::<usize>()).sum();
        self.fields.len() + products + faults
    }

    /// The outline of the document, whose text this is, and what is wrong with it.
    pub fn outline<'a>(&'a self, text: &'a str) -> (Outline<'a>, Vec<Fault>) {
        let fields = Object::parse(&self.fields).expect("an object was written as JSON");
        let products = self.products.iter().map(|(name, span)| Unread { name: name.into(), text: &text[span.clone()] });
        (Outline { fields, products: products.collect(), place: self.place }, self.faults.clone())
    }
}

impl Unfinished {
    /// One with these fields and `products` at this place among them; what it gets has room for so many bytes.
    pub fn new(fields: &Object<'_>, place: Option<usize>, room: usize) -> Self {
        let mut text = Vec::with_capacity(room);
        let mut at = 0;
        fields.write(&mut text, Some(place.unwrap_or(fields.len())), |text| {
            write_name(text, "products");
            text.push(b'{');
            at = text.len();
            text.push(b'}');
        });
        let rest = text.split_off(at);
        Self { text, rest }
    }

    /// Adds a product.
    pub fn add(&mut self, name: &str, json: &[u8]) {
        separate(&mut self.text);
        write_name(&mut self.text, name);
        self.text.extend_from_slice(json);
    }

    /// Adds products that were written one after the other, with their names; where they begin.
    pub fn add_written(&mut self, products: &[u8]) -> usize {
        separate(&mut self.text);
        let start = self.text.len();
        self.text.extend_from_slice(products);
        start
    }

    /// The whole document.
    pub fn finish(mut self) -> Vec<u8> {
        self.text.extend_from_slice(&self.rest);
        self.text.shrink_to_fit();
        self.text
    }
}

#[cfg(test)]
mod tests {
    use crate::simplestreams::fault::Fault;
    use crate::simplestreams::outline::{Outline, Places, Unfinished};
    use crate::simplestreams::products::{Product, Products};

    /// Everything of a document, and what is wrong with it, whichever way it is read.
    fn read(text: &str) -> (Vec<String>, Vec<String>) {
        let places = Places::of(text).unwrap();
        let (outline, mut faults) = places.outline(text);
        let mut products = Vec::new();
        for unread in &outline.products {
            let (product, found) = unread.read::<Product<'_>>();
            products.extend(product.map(|product| product.to_json()));
            faults.extend(found);
        }
        let mut faults: Vec<String> = faults.iter().map(Fault::to_string).collect();
        faults.sort();
        (products, faults)
    }

    #[test]
    fn one_by_one_products_are_what_they_are_together() {
        for text in [
            r#"{"content_id":"x","products":{"p":{"aliases":"a","versions":{"1":{"items":{"i":{"size":1}}}},"os":"o"}},"format":"f"}"#,
            r#"{"products":{"a":1,"b":{"versions":[]},"c":{"versions":{"v":"x","w":{"items":{"i":null,"j":{}}}}}}}"#,
            r#"{"products":{"a":{},"b":{"x":1}},"y":2,"products":{"b":{"x":2},"c":null}}"#,
            r#"{"m\u00e9":{"a":"\ud83d\ude00"},"products":{"\u00e9\"":{"\n":"é"}},"m\u00e9":[1, 2]}"#,
            r#"{"products":null}"#,
            r#"{"products":[1,{}]}"#,
            "{}",
        ] {
            let (together, faults) = Products::parse(text).unwrap();
            let products: Vec<String> = together.products.iter().map(Product::to_json).collect();
            let mut faults: Vec<String> = faults.iter().map(Fault::to_string).collect();
            faults.sort();
            assert_eq!(read(text), (products, faults), "{text}");
            let places = Places::of(text).unwrap();
            let (outline, _) = places.outline(text);
            assert_eq!((outline.place, outline.fields.to_json()), (together.place(), together.fields.to_json()), "{text}");
        }
    }

    #[test]
    fn a_product_that_cannot_be_read_leaves_the_rest() {
        let (products, faults) = read(r#"{"products":{"a":{"\ud800":1},"b":{}}}"#);
        assert_eq!((products.len(), faults.len()), (1, 1));
        assert!(faults[0].starts_with("a: a is not an object"), "{faults:?}");
    }

    #[test]
    fn what_is_no_document_is_refused() {
        for text in ["", "<html></html>", "[]", "7", "null", r#"{"products":{"#, r#"{"products":{"a":{]}}"#, r#"{"products":{}} x"#] {
            assert!(Places::of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_document_is_written_with_the_products_that_it_is_given() {
        let (outline, _) = Outline::parse(r#"{"a":1,"products":{"p":{"x":1}},"b":2}"#).unwrap();
        let mut document = Unfinished::new(&outline.fields, outline.place, 0);
        assert_eq!(document.add_written(br#""o":{"x":1}"#), r#"{"a":1,"products":{"#.len());
        document.add("p\"", b"{}");
        assert_eq!(document.add_written(br#""q":{"y":1}"#), r#"{"a":1,"products":{"o":{"x":1},"p\"":{},"#.len());
        assert_eq!(String::from_utf8(document.finish()).unwrap(), r#"{"a":1,"products":{"o":{"x":1},"p\"":{},"q":{"y":1}},"b":2}"#);
    }

    #[test]
    fn a_document_without_products_gets_them_after_everything_else() {
        let (outline, _) = Outline::parse(r#"{"a":1}"#).unwrap();
        let document = Unfinished::new(&outline.fields, outline.place, 0);
        assert_eq!(String::from_utf8(document.finish()).unwrap(), r#"{"a":1,"products":{}}"#);
    }
}
