// Redoc fetches one picture, its maker's logo, from another server. Nothing here leaves this origin: such an
// address does not reach the element, whichever way React sets it.
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
