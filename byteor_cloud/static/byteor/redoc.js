// Redoc loads the logo of its vendor from another server. This page must not send requests to other origins. Images
// therefore ignore addresses of other origins in the attribute and the property ``src``.
{
  const image = HTMLImageElement.prototype;
  const { setAttribute } = image;
  const { get, set } = Object.getOwnPropertyDescriptor(image, "src");
  const isOurs = (address) => new URL(address, location).origin === location.origin;
  image.setAttribute = function (name, value) {
    if (name !== "src" || isOurs(value)) setAttribute.call(this, name, value);
  };
  Object.defineProperty(image, "src", { get, set(value) { if (isOurs(value)) set.call(this, value); } });
}
