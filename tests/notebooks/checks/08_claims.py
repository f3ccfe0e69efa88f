assert effects["effect"].gt(0).all()
assert set(todo.index) == set(table.index)
