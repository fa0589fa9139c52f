document.title = "Curbside";
