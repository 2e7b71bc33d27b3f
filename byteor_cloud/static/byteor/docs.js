// Makes Swagger UI follow the color scheme of the browser, and makes it accessible. The setting SWAGGER_UI_SETTINGS
// names the plugin.
"use strict";
{
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const setMode = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
  dark.addEventListener("change", setMode);
  setMode();
}

function accessibleDocs({ React }) {
  return {
    wrapComponents: {
      // A link inside of a button cannot be reached with the keyboard. The button sets the same URL.
      DeepLink: () => ({ text }) => React.createElement("span", { className: "nostyle" }, text),
      // Without a label of its own, a button is named by its text.
      Button: (Button) => (props) => React.createElement(Button, { ...props, "aria-label": undefined }),
      CloseIcon: (Icon) => () => [
        React.createElement(Icon, { key: "icon" }), React.createElement("span", { key: "text", className: "spoken" }, "Close"),
      ],
      // There is only one server, and its list has no label.
      ServersContainer: () => () => null,
    },
  };
}
