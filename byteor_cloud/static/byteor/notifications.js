// The list of notifications, and the notification settings.

// Mark a notification as read when its link is followed. That needs a POST, which redirects to the link's page.
const form = document.getElementById("open-notification");

function follow(event) {
  const link = event.target.closest("a[data-open]");
  if (!link || event.button > 1) return;
  event.preventDefault();
  const item = link.closest("li");
  item.removeAttribute("data-unread");
  item.querySelector(".sr-only")?.remove();
  form.action = link.dataset.open;
  form.target = event.button === 1 || event.ctrlKey || event.metaKey || event.shiftKey ? "_blank" : "";
  form.submit();
}

document.addEventListener("click", follow);
document.addEventListener("auxclick", follow);

// Focus the first choice for an added environment. The browser cannot, because the theme hides the page at first.
const focusAdded = () => document.querySelector("[autofocus]")?.focus();
focusAdded();
document.addEventListener("alpine:initialized", focusAdded);
